// SPDX-License-Identifier: Apache-2.0

// Package daemon is bailiffd: it owns every lifetime (the kernel programs, the
// policies in force, the sessions, the log) and serves the control API. It is the
// only place that knows both policies and the kernel side; apply.go joins them.
package daemon
