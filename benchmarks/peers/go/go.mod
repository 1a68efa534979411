module actorstore/benchmarks/peers/go

go 1.19
