// SPDX-License-Identifier: MIT

//go:build !go1.21

package main

// There is no AfterFunc yet.
func afterFuncRuns() {}
