// Package feast is the door for stock Feast clients: the HTTP protocol of Feast's Python feature server below /feast, the
// gRPC services ServingService and GrpcFeatureServer, and the registry file from which older clients resolve names. It
// translates onto featurestore and keeps no state of its own.
//
// Invariants it keeps:
//   - Every request passes the authentication, authorisation, bounds, metrics and log of our own API: internal/api gives
//     the function that does, and no call reaches the store without it.
//   - A row is never found by a part of its key. Clients before 0.64 send one join key of several; they are refused.
//   - A value is never sent under a status that does not fit it, nor in a form that stock clients read as another type:
//     floats have a point or an exponent, and what JSON or those clients cannot carry (an empty list) is null.
//   - A write that is sent again right after is the same write; after another one it is a new one, and wins. Its batch id is
//     made of its content and of the log's end.
//
// The protocol was read in Feast's own clients at 0.50, 0.60, 0.63 and 0.66; they parse it, so they are its definition.
package feast
