// Calls and calls while signals of its own come, as urgent.c does, in a program whose runtime interrupts its own threads
// with SIGURG:
//
//	urgent N
//
// On a line from standard input one goroutine calls getppid N times, while another sends the process SIGUSR1 and SIGWINCH, each
// once the one before has come, and others compute without a break. It prints
//
//	who=self calls=N errors=N codes=N sent=N got=N ticks=N
//
// with the meaning of urgent.c; ticks: the SIGURGs that came. It ends with standard input.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

var ended atomic.Bool
var sink atomic.Uint64

// Takes no breath: only a signal gets this goroutine off its thread.
func compute(seed uint64) uint64 {
	for i := 0; i < 2_000_000; i++ {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
	}
	return seed
}

// Counts one kind of signal.
func count(kind os.Signal) *atomic.Int64 {
	came := make(chan os.Signal, 4096)
	signal.Notify(came, kind)
	number := new(atomic.Int64)
	go func() {
		for range came {
			number.Add(1)
		}
	}()
	return number
}

func main() {
	number, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	kinds := []syscall.Signal{syscall.SIGUSR1, syscall.SIGWINCH}
	came := []*atomic.Int64{count(kinds[0]), count(kinds[1])}
	ticks := count(syscall.SIGURG)
	self := os.Getpid()
	fmt.Printf("ready %d none\n", self)
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')

	for i := 0; i < 2; i++ {
		go func(seed uint64) {
			for !ended.Load() {
				seed = compute(seed)
			}
			sink.Add(seed)
		}(uint64(i + 1))
	}
	sent := make(chan int64)
	go func() {
		numbers := []int64{0, 0}
		for !ended.Load() {
			for i, kind := range kinds {
				if came[i].Load() >= numbers[i] {
					syscall.Kill(self, kind)
					numbers[i]++
				}
			}
			time.Sleep(200 * time.Microsecond)
		}
		// The last ones come, too.
		for i := 0; i < 5000 && (came[0].Load() < numbers[0] || came[1].Load() < numbers[1]); i++ {
			time.Sleep(time.Millisecond)
		}
		sent <- numbers[0] + numbers[1]
	}()

	var parent uintptr
	errors, codes := 0, 0
	pace := uint64(1)
	for i := 0; i < number; i++ {
		result, _, errno := syscall.Syscall(syscall.SYS_GETPPID, 0, 0, 0)
		if i == 0 {
			parent = result
		}
		if errno != 0 || result != parent {
			errors++
		}
		if errno >= 512 && errno <= 531 {
			codes++
		}
		for j := 0; j < 500; j++ {
			pace ^= pace << 13
			pace ^= pace >> 7
		}
	}
	sink.Add(pace)
	ended.Store(true)
	all := <-sent
	fmt.Printf("who=self calls=%d errors=%d codes=%d sent=%d got=%d ticks=%d\n",
		number, errors, codes, all, came[0].Load()+came[1].Load(), ticks.Load())
	runtime.KeepAlive(came)
	io.Copy(io.Discard, input)
}
