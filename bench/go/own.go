// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	siblings = 100000
	layers   = 100
	ofAKind  = 200000
)

// What has to stay alive, and what a loop computes, goes here: else the compiler or the collector could take it away.
var (
	kept    []interface{}
	sinkErr error
	sinkAny interface{}
	sinkInt int
)

type key int

// Keys and values that are in interfaces before the clock runs.
var (
	keys  [1000]interface{}
	noKey interface{} = key(-1)
	one   interface{} = 1
)

func init() {
	for i := range keys {
		keys[i] = key(i)
	}
}

func liveParent() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	kept = append(kept, ctx, cancel)
	return ctx
}

func endedParent() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// addLayers adds depth values; keys[0] is nearest to ctx.
func addLayers(ctx context.Context, depth int) context.Context {
	for i := 0; i < depth; i++ {
		ctx = context.WithValue(ctx, keys[i], one)
	}
	return ctx
}

func ownRuns() {
	deriveRuns()
	valueRuns()
	askRuns()
	treeRuns()
	timerRuns()
	memoryRuns()
}

// ---- Making and ending one context

func cancelLoop(parent context.Context) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			_, cancel := context.WithCancel(parent)
			cancel()
		}
	}
}

func timeoutLoop(parent context.Context) func(n int) {
	return func(n int) {
		for i := 0; i < n; i++ {
			_, cancel := context.WithTimeout(parent, time.Hour)
			cancel()
		}
	}
}

func deriveRuns() {
	perTurn("with_cancel.background", minTime, func() func(n int) {
		return cancelLoop(context.Background())
	})
	perTurn("with_cancel.parent", minTime, func() func(n int) {
		return cancelLoop(liveParent())
	})
	perTurn("with_cancel.siblings", longTime, func() func(n int) {
		parent := liveParent()
		for i := 0; i < siblings; i++ {
			_, cancel := context.WithCancel(parent)
			kept = append(kept, cancel)
		}
		return cancelLoop(parent)
	})
	perTurn("with_timeout.background", minTime, func() func(n int) {
		return timeoutLoop(context.Background())
	})
	perTurn("with_timeout.parent", minTime, func() func(n int) {
		return timeoutLoop(liveParent())
	})
	perTurn("with_timeout.siblings", longTime, func() func(n int) {
		parent := liveParent()
		for i := 0; i < siblings; i++ {
			_, cancel := context.WithTimeout(parent, time.Hour)
			kept = append(kept, cancel)
		}
		return timeoutLoop(parent)
	})
	for _, count := range []int{1, 2} {
		count := count
		perTurn(fmt.Sprintf("threads.%d", count), minTime, func() func(n int) {
			return inEach(count, cancelLoop(liveParent()))
		})
	}
}

// ---- Values

func valueLoop(ctx context.Context, key interface{}) func(n int) {
	return func(n int) {
		var value interface{}
		for i := 0; i < n; i++ {
			value = ctx.Value(key)
		}
		sinkAny = value
	}
}

func valueRuns() {
	perTurn("with_value", minTime, func() func(n int) {
		return func(n int) {
			var ctx context.Context
			for i := 0; i < n; i++ {
				ctx = context.WithValue(context.Background(), keys[0], one)
			}
			sinkAny = ctx
		}
	})
	perTurn("with_values.8", minTime, func() func(n int) {
		return func(n int) {
			var ctx context.Context
			for i := 0; i < n; i++ {
				ctx = addLayers(context.Background(), 8)
			}
			sinkAny = ctx
		}
	})
	for _, depth := range []int{1, 10, 100, 1000} {
		depth := depth
		perTurn(fmt.Sprintf("value.hit.%d", depth), minTime, func() func(n int) {
			return valueLoop(addLayers(context.Background(), depth), keys[0])
		})
		perTurn(fmt.Sprintf("value.miss.%d", depth), minTime, func() func(n int) {
			return valueLoop(addLayers(context.Background(), depth), noKey)
		})
	}
}

// ---- Asking

func errLoop(ctx context.Context) func(n int) {
	return func(n int) {
		var err error
		for i := 0; i < n; i++ {
			err = ctx.Err()
		}
		sinkErr = err
	}
}

func doneLoop(ctx context.Context) func(n int) {
	return func(n int) {
		ended := 0
		for i := 0; i < n; i++ {
			select {
			case <-ctx.Done():
				ended++
			default:
			}
		}
		sinkInt += ended // several goroutines may be here: whichever comes last will do
	}
}

func askRuns() {
	states := []struct {
		name string
		make func() context.Context
	}{{"live", liveParent}, {"ended", endedParent}}
	for _, state := range states {
		state := state
		perTurn("err."+state.name, minTime, func() func(n int) {
			return errLoop(state.make())
		})
		perTurn("done."+state.name, minTime, func() func(n int) {
			return doneLoop(state.make())
		})
		perTurn("err."+state.name+".layers", minTime, func() func(n int) {
			return errLoop(addLayers(state.make(), layers))
		})
		perTurn("done."+state.name+".layers", minTime, func() func(n int) {
			return doneLoop(addLayers(state.make(), layers))
		})
	}
	perTurn("wait.0", minTime, func() func(n int) {
		return doneLoop(liveParent())
	})
}

// ---- Ending a tree

func growChildren(parent context.Context, size int) context.Context {
	for i := 0; i < size; i++ {
		_, cancel := context.WithCancel(parent)
		_ = cancel // the parent holds the child
	}
	return parent
}

func growChain(parent context.Context, size int) context.Context {
	for i := 0; i < size; i++ {
		var cancel func()
		parent, cancel = context.WithCancel(parent)
		_ = cancel
	}
	return parent
}

type grower func(parent context.Context, size int) context.Context

func cancelTrees(grow grower, size, count int) time.Duration {
	leaves := make([]context.Context, count)
	cancels := make([]context.CancelFunc, count)
	for i := range cancels {
		var parent context.Context
		parent, cancels[i] = context.WithCancel(context.Background())
		leaves[i] = grow(parent, size)
	}
	start := time.Now()
	for _, cancel := range cancels {
		cancel()
	}
	took := time.Since(start)
	runtime.KeepAlive(leaves)
	return took
}

func perNode(name string, grow grower, size int) {
	add(name, func(name string) {
		count := 1
		if size < 30000 {
			count = 30000 / size
		}
		var took time.Duration
		nodes := 0
		for took < minTime {
			took += cancelTrees(grow, size, count)
			nodes += count * size
		}
		report(name, float64(took)/float64(nodes))
	})
}

func treeRuns() {
	for _, size := range []int{1, 1000, 100000, 1000000} {
		perNode(fmt.Sprintf("cancel.children.%d", size), growChildren, size)
	}
	for _, size := range []int{10000, 1000000} {
		perNode(fmt.Sprintf("cancel.chain.%d", size), growChain, size)
	}
	add("err.blocked", errBlocked)
	add("wakeup", wakeup)
}

func errBlocked(name string) {
	parent, cancel := context.WithCancel(context.Background())
	growChildren(parent, 1000000)
	var phase int32 // of the goroutine that cancels: 0 not yet, 1 under way, 2 done
	go func() {
		atomic.StoreInt32(&phase, 1)
		cancel()
		atomic.StoreInt32(&phase, 2)
	}()
	for atomic.LoadInt32(&phase) == 0 {
		runtime.Gosched()
	}
	var longest time.Duration
	for atomic.LoadInt32(&phase) != 2 {
		start := time.Now()
		sinkErr = parent.Err()
		if took := time.Since(start); took > longest {
			longest = took
		}
	}
	report(name, float64(longest))
}

func wakeUpTime() float64 {
	ctx, cancel := context.WithCancel(context.Background())
	woken := make(chan time.Time)
	go func() {
		<-ctx.Done()
		woken <- time.Now()
	}()
	time.Sleep(300 * time.Microsecond) // so that it sleeps
	start := time.Now()
	cancel()
	return float64((<-woken).Sub(start))
}

func quantile(list []float64, q float64) float64 {
	sort.Float64s(list)
	return list[int(float64(len(list)-1)*q)]
}

func wakeup(name string) {
	var ns [200]float64
	for i := range ns {
		ns[i] = wakeUpTime()
	}
	report(name, quantile(ns[:], 0.5))
}

// ---- Timers

type tally struct {
	create, cancel time.Duration
	timers         int
}

func (tally *tally) createAndCancel(contexts []context.Context, cancels []context.CancelFunc) {
	start := time.Now()
	for i := range contexts {
		contexts[i], cancels[i] = context.WithTimeout(context.Background(), time.Hour)
	}
	created := time.Now()
	for _, cancel := range cancels {
		cancel()
	}
	cancelled := time.Now()
	tally.create += created.Sub(start)
	tally.cancel += cancelled.Sub(created)
	tally.timers += len(contexts)
}

// expire tells how long it takes from the common deadline of the timers until all have ended, and whether they could
// be made before their deadline.
func expire(contexts []context.Context, cancels []context.CancelFunc, lead time.Duration) (time.Duration, bool) {
	deadline := time.Now().Add(lead)
	for i := range contexts {
		contexts[i], cancels[i] = context.WithDeadline(context.Background(), deadline)
	}
	inTime := time.Now().Before(deadline)
	for i := len(contexts) - 1; i >= 0; i-- { // the last one first: then few of the others are still to be waited for
		if contexts[i].Err() == nil {
			<-contexts[i].Done()
		}
	}
	return time.Since(deadline), inTime
}

func expireInTime(contexts []context.Context, cancels []context.CancelFunc, lead time.Duration) time.Duration {
	for ; ; lead *= 2 {
		if took, inTime := expire(contexts, cancels, lead); inTime {
			return took
		}
	}
}

func timers(name string, n, times int) {
	contexts, cancels := make([]context.Context, n), make([]context.CancelFunc, n)
	var tally tally
	for tally.create < minTime {
		tally.createAndCancel(contexts, cancels)
	}
	create := float64(tally.create) / float64(tally.timers)
	var expired time.Duration
	for i := 0; i < times; i++ {
		lead := 2*time.Millisecond + time.Duration(1.5*create*float64(n))
		expired += expireInTime(contexts, cancels, lead)
	}
	report(name+":create", create)
	report(name+":cancel", float64(tally.cancel)/float64(tally.timers))
	report(name+":expire", float64(expired)/float64(n*times))
}

func late(name string) {
	const count = 10000
	var late [count]float64
	var wg sync.WaitGroup
	wg.Add(count)
	start := time.Now().Add(200 * time.Millisecond)
	for i := range late {
		i := i
		deadline := start.Add(time.Duration(i*7919%count) * (time.Second / count)) // out of order: 7919 is prime
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		kept = append(kept, cancel)
		go func() {
			<-ctx.Done()
			late[i] = float64(time.Since(deadline))
			wg.Done()
		}()
	}
	wg.Wait()
	report(name+":p50", quantile(late[:], 0.5))
	report(name+":p99", quantile(late[:], 0.99))
}

func timerRuns() {
	add("timers.100", func(name string) { timers(name, 100, 20) })
	add("timers.1000000", func(name string) { timers(name, 1000000, 1) })
	add("late", late)
}

// ---- Memory

func allocated() float64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

func bytesEach(name string, make func() (context.Context, context.CancelFunc)) {
	var contexts [ofAKind]context.Context
	var cancels [ofAKind]context.CancelFunc
	kept = append(kept, &contexts, &cancels)
	before := allocated()
	for i := range contexts {
		contexts[i], cancels[i] = make()
	}
	report(name, (allocated()-before)/ofAKind)
}

func memoryRuns() {
	add("bytes.with_cancel", func(name string) {
		parent := liveParent()
		bytesEach(name, func() (context.Context, context.CancelFunc) {
			return context.WithCancel(parent)
		})
	})
	add("bytes.with_timeout", func(name string) {
		parent := liveParent()
		bytesEach(name, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(parent, time.Hour)
		})
	})
	add("bytes.with_value", func(name string) {
		bytesEach(name, func() (context.Context, context.CancelFunc) {
			return context.WithValue(context.Background(), keys[0], one), nil
		})
	})
}
