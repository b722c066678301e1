// Package api is the door: our gRPC services and their REST twin. It translates between wire and domain and owns one
// invariant: no call reaches a service without passing the interceptors, REST calls included, because REST runs through
// an in-process connection with the same chain. Every rpc carries an authorisation option; one without is refused.
package api
