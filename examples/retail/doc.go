// Package retail is a second example of feature definitions, on real orders: the open "Online Retail" data set of the UCI
// Machine Learning Repository (https://archive.ics.uci.edu/dataset/352/online+retail), the order lines of a web shop in
// 2010 and 2011. The file does not come with Waybill.
//
// It holds definitions (YAML, embedded), a reader of the file, and what makes the log of two views out of it: demand and
// returns per article and, for articles that have no history yet, per family of articles. It keeps one invariant: a row's
// event time is the end of the last day that it counts, so that nothing in it was unknown then. It does no I/O beyond the
// reader it is given, and holds what it read in memory: some 60 bytes for each line.
package retail

import _ "embed"

// Definitions are the views and the service, as YAML.
//
//go:embed definitions/features.yaml
var Definitions string
