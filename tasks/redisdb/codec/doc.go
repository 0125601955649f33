// Package codec knows how things are written in Redis: the names of keys that several
// packages use, the letters of states, and how a job record is read. It asks nobody.
package codec
