"""Works as programs in Python do, and says whether all came out as it should: threads that compute and
pass bytes through pipes and queues, programs that it starts, a file that it syncs, and a timer of 5 ms
whose signal interrupts all of it.

    worker.py FILE SECONDS

On a line from standard input it does its job again and again for so long, and prints

    done laps=N digest=HEX wrong=N calls=N errors=N other=N alarms=N

digest: what one lap comes to; wrong: laps that came to something else or met an error that nobody made;
calls: fsyncs; errors: those that failed with EIO; other: with anything else; alarms: the timer's signals
that were handled. It ends with standard input.
"""

import errno
import hashlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

WORKERS = 4
STEPS = 40_000
BLOCKS = 16
SIZE = 8192
SYNCS = 12

alarms = 0


def on_alarm(_number, _frame):
    global alarms
    alarms += 1


class Tally:
    calls = errors = other = 0


def block(seed, number):
    return bytes((seed * 31 + number + i) & 255 for i in range(64)) * (SIZE // 64)


def computed(seed):
    for _ in range(STEPS):
        seed = (seed * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
    return f"{seed:x}"


def piped(seed):
    """Blocks that one thread writes to a pipe and this one reads from it; the writer says when it is done."""
    reader, writer = os.pipe()
    said = queue.Queue()

    def write():
        with os.fdopen(writer, "wb", buffering=0) as sink:
            for number in range(BLOCKS):
                left = block(seed, number)
                while left:
                    left = left[sink.write(left):]
        said.put(seed)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as source:
        sum_of_it = hashlib.sha256(source.read()).hexdigest()
    thread.join()
    if said.get(timeout=60) != seed:
        raise RuntimeError("another writer's word")
    return sum_of_it


def synced(path, tally):
    """Writes a file piece by piece, syncs each, and reads it back. A sync that fails as it was told to is
    counted, and no mistake."""
    with open(path, "wb", buffering=0) as file:
        for number in range(SYNCS):
            file.write(block(9, number))
            tally.calls += 1
            try:
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno == errno.EIO:
                    tally.errors += 1
                else:
                    tally.other += 1
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def started():
    """What other programs make of their input."""
    done = subprocess.run(["cat"], input=block(3, 3), stdout=subprocess.PIPE, check=True)
    status = subprocess.run(["sh", "-c", "exit 3"], check=False).returncode
    return hashlib.sha256(done.stdout).hexdigest() + str(status)


def lap(path, tally, pool):
    parts = [pool.submit(synced, path, tally), pool.submit(started)]
    for worker in range(WORKERS):
        parts += [pool.submit(computed, worker + 1), pool.submit(piped, worker + 1)]
    time.sleep(0.002)
    return hashlib.sha256(" ".join(part.result() for part in parts).encode()).hexdigest()[:16]


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: see the head of worker.py")
    path, seconds = sys.argv[1], int(sys.argv[2])
    print(f"ready {os.getpid()} {path}", flush=True)
    sys.stdin.readline()
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    laps = wrong = 0
    digest, tally, end = None, Tally(), time.monotonic() + seconds
    with ThreadPoolExecutor(max_workers=2 * WORKERS + 2) as pool:
        while laps < 2 or time.monotonic() < end:
            try:
                found = lap(path, tally, pool)
            except Exception as error:  # Whatever it is, nobody asked for it.
                print(repr(error), file=sys.stderr)
                found = repr(error)
            digest = digest or found
            wrong += found != digest or "(" in found
            laps += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(
        f"done laps={laps} digest={digest} wrong={wrong} calls={tally.calls} errors={tally.errors} "
        f"other={tally.other} alarms={alarms}",
        flush=True,
    )
    sys.stdin.read()


if __name__ == "__main__":
    main()
