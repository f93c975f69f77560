// SPDX-License-Identifier: MIT

// The rows of the benchmark (rows.lua) in Go, for Go 1.19 and newer, with the standard library only.
//
//	go            runs all of them once, for a look
//	go list       names the runs
//	go version    says which Go this is
//	go RUN        runs one: each line is a row, a tab, and nanoseconds (or bytes)
//
// A figure comes out of one loop of minTime or more, with the collector as it is by default.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

const (
	minTime  = 25 * time.Millisecond
	longTime = 200 * time.Millisecond // where there is a large heap: the collector is to have its turn
)

type run struct {
	name    string
	measure func(name string)
}

var runs []run

func add(name string, measure func(name string)) {
	runs = append(runs, run{name, measure})
}

// perTurn adds a run of a loop: nanoseconds for one of n turns. setUp makes the loop.
func perTurn(name string, min time.Duration, setUp func() func(n int)) {
	add(name, func(name string) {
		report(name, calibrated(min, setUp()))
	})
}

func calibrated(min time.Duration, loop func(n int)) float64 {
	for n := 1; ; {
		start := time.Now()
		loop(n)
		took := time.Since(start)
		if took >= min*8/10 {
			return float64(took) / float64(n)
		}
		if took < min/50 {
			n *= 10
		} else {
			n = int(float64(n)*float64(min)/float64(took)*1.1) + 1
		}
	}
}

// inEach runs n turns in each of count goroutines.
func inEach(count int, loop func(n int)) func(n int) {
	return func(n int) {
		var wg sync.WaitGroup
		wg.Add(count)
		for i := 0; i < count; i++ {
			go func() {
				defer wg.Done()
				loop(n)
			}()
		}
		wg.Wait()
	}
}

// inParallel shares n turns out, as RunParallel does it.
func inParallel(loop func(n int)) func(n int) {
	count := runtime.GOMAXPROCS(0)
	return func(n int) {
		inEach(count, loop)((n + count - 1) / count)
	}
}

func report(name string, value float64) {
	fmt.Printf("%s\t%.3f\n", name, value)
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "version" {
		fmt.Println(runtime.Version())
		return
	}
	ownRuns()
	afterFuncRuns()
	goRuns()
	for _, run := range runs {
		if len(os.Args) > 1 && os.Args[1] == "list" {
			fmt.Println(run.name)
		} else if len(os.Args) < 2 || os.Args[1] == run.name {
			run.measure(run.name)
			kept = nil
			runtime.GC()
		}
	}
}
