// Package waybill is the vocabulary that every other package shares: tenants, actors, ids, versions, the clock and
// the one error type. It owns no state, does no I/O and imports the standard library only, so that everyone may
// import it and it imports nobody.
//
// The product is a feature store and model governance hub: see README.md. The way of a decision through the packages:
//
//	internal/access   who is calling, and may they
//	internal/api      wire formats to domain calls, one error table
//	decision          the one place where the domains meet
//	featurestore      online rows and training sets out of one log
//	registry          model versions, approvals
//	score             model bytes + vector → score and contributions
//	audit             the decision log: no receipt, no answer
//	lineage, drift    what depends on what; what is changing
package waybill
