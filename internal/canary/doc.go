// SPDX-License-Identifier: Apache-2.0

// Package canary is a process that is told to try things, and says how each
// ended. The daemon confines it like a session, and learns from it whether what
// must be denied still is.
//
// Two processes of the same executable take part: the daemon holds a Child; the
// child, run with Argument, is in Serve. Everything is tried on the child's first
// thread, which is the one that is labelled.
package canary
