"""Calls and calls while signals of its own come, as urgent.c does, in an interpreter, which takes note of a signal and handles
it later:

    urgent.py N

On a line from standard input it calls getppid N times, while a thread sends the process SIGUSR1 and SIGWINCH, each once the
one before has come, and a timer comes. It prints

    who=self calls=N errors=N codes=N sent=N got=N ticks=N

with the meaning of urgent.c. It ends with standard input.
"""

import os
import signal
import sys
import threading
import time

KINDS = (signal.SIGUSR1, signal.SIGWINCH)
came = {kind: 0 for kind in (*KINDS, signal.SIGALRM)}
ended = threading.Event()
sent = []


def take_note(kind, _frame):
    came[kind] += 1


def send(own):
    numbers = dict.fromkeys(KINDS, 0)
    while not ended.is_set():
        for kind in KINDS:
            if came[kind] >= numbers[kind]:
                os.kill(own, kind)
                numbers[kind] += 1
        time.sleep(0.0002)
    # The last ones come, too; the first thread handles them.
    sent.append(numbers)


def main():
    number = int(sys.argv[1])
    for kind in came:
        signal.signal(kind, take_note)
    own = os.getpid()
    print("ready", own, "none", flush=True)
    sys.stdin.readline()
    sender = threading.Thread(target=send, args=(own,))
    sender.start()
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    errors = codes = 0
    parent = os.getppid()
    for _ in range(number - 1):
        result = os.getppid()
        if result != parent:
            errors += 1
            codes += -531 <= result <= -512
        for _ in range(30):
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    ended.set()
    sender.join()
    until = time.monotonic() + 5
    while any(came[kind] < sent[0][kind] for kind in KINDS) and time.monotonic() < until:
        time.sleep(0.001)
    all_sent, got = sum(sent[0].values()), sum(came[kind] for kind in KINDS)
    ticks = came[signal.SIGALRM]
    print(f"who=self calls={number} errors={errors} codes={codes} sent={all_sent} got={got} ticks={ticks}", flush=True)
    sys.stdin.read()


main()
