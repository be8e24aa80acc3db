// Works as programs in Go do, and says whether all came out as it should: goroutines that compute in
// loops without a call, which the runtime interrupts with SIGURG to let others run; bytes through pipes;
// timers; programs that it starts; a file that it syncs.
//
//	worker FILE SECONDS
//
// On a line from standard input it does its job again and again for so long, and prints
//
//	done laps=N digest=HEX wrong=N calls=N errors=N other=N alarms=N
//
// digest: what one lap comes to; wrong: laps that came to something else or met an error that nobody
// made; calls: fsyncs; errors: those that failed with EIO; other: with anything else; alarms: the SIGURGs
// that came. It ends with standard input.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	workers = 4
	steps   = 4_000_000
	blocks  = 16
	size    = 8192
	syncs   = 12
)

// computed takes no breath: only a signal gets this goroutine off its thread.
func computed(seed uint64) uint64 {
	for i := 0; i < steps; i++ {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
	}
	return seed
}

func block(seed uint64, number int) []byte {
	bytes := make([]byte, size)
	for i := range bytes {
		bytes[i] = byte(seed>>(uint(i%8)*8)) + byte(number+i)
	}
	return bytes
}

// piped is the sum of blocks that one goroutine writes to a pipe and this one reads from it.
func piped(seed uint64) (uint64, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	written := make(chan error, 1)
	go func() {
		defer writer.Close()
		for number := 0; number < blocks; number++ {
			if _, err := writer.Write(block(seed, number)); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	hash := fnv.New64a()
	if _, err := io.Copy(hash, reader); err != nil {
		return 0, err
	}
	return hash.Sum64(), <-written
}

type tally struct{ calls, errors, other int64 }

// synced writes a file piece by piece, syncs each, and reads it back. A sync that fails as it was told to
// is counted, and no mistake.
func synced(path string, tally *tally) (uint64, error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for number := 0; number < syncs; number++ {
		if _, err := file.Write(block(9, number)); err != nil {
			return 0, err
		}
		tally.calls++
		if err := file.Sync(); errors.Is(err, syscall.EIO) {
			tally.errors++
		} else if err != nil {
			tally.other++
		}
	}
	whole, err := os.ReadFile(path)
	hash := fnv.New64a()
	hash.Write(whole)
	return hash.Sum64(), err
}

// started is what another program makes of its input.
func started() (uint64, error) {
	command := exec.Command("cat")
	command.Stdin = bytes.NewReader(block(3, 3))
	output, err := command.Output()
	if err != nil {
		return 0, err
	}
	if err := exec.Command("sh", "-c", "exit 3").Run(); command.ProcessState.ExitCode() != 0 || err == nil {
		return 0, fmt.Errorf("statuses %v, %v", command.ProcessState, err)
	}
	hash := fnv.New64a()
	hash.Write(output)
	return hash.Sum64(), nil
}

// lap does the job once. Each part has a place in the sum, so that they may end in any order.
func lap(path string, tally *tally) (uint64, error) {
	var sums [2*workers + 2]uint64
	var mistakes [len(sums)]error
	var group sync.WaitGroup
	part := func(place int, work func() (uint64, error)) {
		group.Add(1)
		go func() {
			defer group.Done()
			sums[place], mistakes[place] = work()
		}()
	}
	for worker := 0; worker < workers; worker++ {
		seed := uint64(worker + 1)
		part(2*worker, func() (uint64, error) { return computed(seed), nil })
		part(2*worker+1, func() (uint64, error) { return piped(seed) })
	}
	part(2*workers, func() (uint64, error) { return synced(path, tally) })
	part(2*workers+1, started)
	time.Sleep(2 * time.Millisecond)
	// Stops all goroutines, by signal where they do not stop by themselves.
	runtime.GC()
	group.Wait()
	hash := fnv.New64a()
	for place, sum := range sums {
		if mistakes[place] != nil {
			return 0, fmt.Errorf("part %d: %w", place, mistakes[place])
		}
		fmt.Fprintf(hash, "%x ", sum)
	}
	return hash.Sum64(), nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: see the head of worker.go")
		os.Exit(2)
	}
	path := os.Args[1]
	seconds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// More threads than there are processors.
	runtime.GOMAXPROCS(workers)
	urgent := make(chan os.Signal, 1024)
	signal.Notify(urgent, syscall.SIGURG)
	var alarms, ticks int64
	go func() {
		for range urgent {
			atomic.AddInt64(&alarms, 1)
		}
	}()
	ticker := time.NewTicker(time.Millisecond)
	go func() {
		for range ticker.C {
			atomic.AddInt64(&ticks, 1)
		}
	}()
	fmt.Printf("ready %d %s\n", os.Getpid(), path)
	input := bufio.NewReader(os.Stdin)
	if _, err := input.ReadString('\n'); err != nil {
		os.Exit(2)
	}
	var digest uint64
	var laps, wrong int
	var seen tally
	for start := time.Now(); laps < 2 || time.Since(start) < time.Duration(seconds)*time.Second; laps++ {
		sum, err := lap(path, &seen)
		if err != nil {
			fmt.Fprintln(os.Stderr, strings.TrimSpace(err.Error()))
		}
		if laps == 0 {
			digest = sum
		}
		if err != nil || sum != digest {
			wrong++
		}
	}
	if atomic.LoadInt64(&ticks) == 0 {
		fmt.Fprintln(os.Stderr, "no timer ran")
		wrong++
	}
	fmt.Printf("done laps=%d digest=%x wrong=%d calls=%d errors=%d other=%d alarms=%d\n",
		laps, digest, wrong, seen.calls, seen.errors, seen.other, atomic.LoadInt64(&alarms))
	io.Copy(io.Discard, input)
}
