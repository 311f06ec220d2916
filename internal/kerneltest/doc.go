// SPDX-License-Identifier: Apache-2.0

// Package kerneltest holds what tests need to meet a real kernel: checks of what
// this machine can do, each ending in a skip that says why, and short-lived
// cgroups, network namespaces and file systems.
//
// A skip's message starts with SkipReason, so that a run's summary can count
// skips by their reason. With CI=true in the environment a missing program is a
// failure, since there it can be installed.
package kerneltest
