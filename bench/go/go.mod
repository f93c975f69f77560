// go 1.19 is the oldest that builds it.
module lcontext/bench

go 1.19
