// Package report is what the benchmark says: figures and how far apart they are, the targets
// and whether these are kept, the machine that was measured, and the table and the JSON that
// say so. It measures nothing.
package report
