// Package expr is the one evaluator of user-written expressions: on-demand features, rule sets, gates and input
// mappings all compile here, so that a formula means the same wherever it stands. The language is CEL
// (https://cel.dev) with a few functions of ours (see functions.go) and three kindnesses that CEL lacks: ints and
// doubles mix in arithmetic, a missing value is null whatever its declared type, and has(x) works on a variable.
//
// The invariant: an accepted expression terminates, has no effect, reads nothing but its variables, and costs a
// bounded amount of time and memory whatever values it is given. Compile refuses what it can prove too dear, Eval stops what
// turns out too dear. Both answer with waybill.Invalid and neither panics. Any package may import expr; it keeps no
// state and a Program may be evaluated by many goroutines at once.
package expr
