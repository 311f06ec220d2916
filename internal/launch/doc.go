// SPDX-License-Identifier: Apache-2.0

// Package launch starts one command as a confined session.
//
// Two processes of the same executable take part. The parent (Run) stays
// outside the session: it follows the command's stops, signals and exit, and
// tells afterwards what was denied. The stub (Confine) becomes the command: it
// opens the connection to the daemon itself, because the daemon labels the
// process it finds at the other end of the socket, then gives up what a
// session must not have (inherited descriptors but the kept ones, core dumps, capabilities that its
// policies don't name, system calls that have no place in an agent), and execs.
//
// Both run on the first thread of their process: the kernel's label and the
// one thread that survives an exec are that thread's. The caller's main package
// must therefore lock its main goroutine in an init function.
//
// Exit statuses are those of env(1) and nohup(1): 125 when Bailiff itself
// failed or refused, 126 when the command was found and can't be executed, 127
// when it wasn't found, else the command's own.
//
// What is not as without Bailiff: a signal sent to the whole process group by
// a process (not by the terminal's keys) reaches the command twice when it is
// one that the parent passes on, and signals other than SIGHUP, SIGINT and
// (with SIGINT) SIGQUIT that were ignored at the start have their default
// action in the command, since the Go runtime doesn't keep them.
package launch
