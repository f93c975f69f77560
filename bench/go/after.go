// SPDX-License-Identifier: MIT

//go:build go1.21

package main

import "context"

func afterFuncRuns() {
	perTurn("after_func", minTime, func() func(n int) {
		ctx := liveParent()
		return func(n int) {
			for i := 0; i < n; i++ {
				context.AfterFunc(ctx, func() {})()
			}
		}
	})
}
