// Package devstack is the embedded default: a private Postgres cluster from the machine's binaries and an S3 gateway
// in process, both on loopback, for `waybill dev`, `waybill demo` and tests. It owns one data directory and keeps one
// invariant: whatever was acknowledged before a kill -9 of the hub or of Postgres is there after the next Open.
//
// Production runs on a Postgres and an S3 of the operator's choice and never comes here.
package devstack
