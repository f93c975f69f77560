// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Those of Go's context package: benchmark_test.go there, and ErrOK and ErrCanceled of later versions.
func goRuns() {
	perTurn("CommonParentCancel", minTime, func() func(n int) {
		return inParallel(commonParentLoop(context.WithValue(context.Background(), keys[0], one)))
	})
	for _, concurrency := range []int{40, 4000, 400000} {
		concurrency := concurrency
		min := minTime
		if concurrency > siblings {
			min = longTime
		}
		perTurn(fmt.Sprintf("WithTimeout/concurrency=%d", concurrency), min, func() func(n int) {
			populate(concurrency)
			return inParallel(tenTimeouts)
		})
	}
	for _, depth := range []int{1, 10, 100, 1000} {
		treeOf(fmt.Sprintf("CancelTree/depth=%d/Root=", depth), depth)
	}
	perTurn("CheckCanceled/Err", minTime, func() func(n int) { return errLoop(endedParent()) })
	perTurn("CheckCanceled/Done", minTime, func() func(n int) { return doneLoop(endedParent()) })
	perTurn("ContextCancelDone", minTime, func() func(n int) { return inParallel(doneLoop(liveParent())) })
	for _, depth := range []int{10, 20, 30, 50, 100} {
		deepValue(depth)
	}
	perTurn("ErrOK", minTime, func() func(n int) { return errLoop(liveParent()) })
	perTurn("ErrCanceled", minTime, func() func(n int) { return errLoop(endedParent()) })
}

func divide(x int) int {
	for i := 0; i < 100; i++ {
		x /= x + 1
	}
	return x
}

func commonParentLoop(root context.Context) func(n int) {
	shared, cancel := context.WithCancel(root)
	kept = append(kept, cancel)
	return func(n int) {
		x := 0
		for i := 0; i < n; i++ {
			ctx, cancel := context.WithCancel(shared)
			if ctx.Value(keys[0]) != one {
				panic("value lost")
			}
			x = divide(x)
			cancel()
			x = divide(x)
		}
		sinkInt += x
	}
}

// populate makes that many live timeouts, each processor its part of them.
func populate(concurrency int) {
	count := runtime.GOMAXPROCS(0)
	cancels := make([][]context.CancelFunc, count)
	var wg sync.WaitGroup
	wg.Add(count)
	for i := range cancels {
		go func(i int) {
			defer wg.Done()
			cancels[i] = make([]context.CancelFunc, concurrency/count)
			for j := range cancels[i] {
				_, cancels[i][j] = context.WithTimeout(context.Background(), time.Hour)
			}
		}(i)
	}
	wg.Wait()
	kept = append(kept, cancels)
}

func tenTimeouts(n int) {
	cancels := make([]context.CancelFunc, 10)
	for i := 0; i < n; i++ {
		for k := range cancels {
			_, cancels[k] = context.WithTimeout(context.Background(), time.Hour)
		}
		for _, cancel := range cancels {
			cancel()
		}
	}
}

func treeOf(name string, depth int) {
	loop := func(root string, turn func()) {
		perTurn(name+root, minTime, func() func(n int) {
			return func(n int) {
				for i := 0; i < n; i++ {
					turn()
				}
			}
		})
	}
	loop("Background", func() {
		growChain(context.Background(), depth)
	})
	loop("OpenCanceler", func() {
		ctx, cancel := context.WithCancel(context.Background())
		growChain(ctx, depth)
		cancel()
	})
	loop("ClosedCanceler", func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		growChain(ctx, depth)
	})
}

func deepValue(depth int) {
	perTurn(fmt.Sprintf("DeepValueNewGoRoutine/depth=%d", depth), minTime, func() func(n int) {
		ctx := addLayers(context.Background(), depth)
		return func(n int) {
			for i := 0; i < n; i++ {
				var wg sync.WaitGroup
				wg.Add(1)
				go func() {
					defer wg.Done()
					sinkAny = ctx.Value(noKey)
				}()
				wg.Wait()
			}
		}
	})
	perTurn(fmt.Sprintf("DeepValueSameGoRoutine/depth=%d", depth), minTime, func() func(n int) {
		return valueLoop(addLayers(context.Background(), depth), noKey)
	})
}
