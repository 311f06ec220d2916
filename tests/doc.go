// SPDX-License-Identifier: Apache-2.0

// Package tests holds the whole-system tests: the real bailiffd, private to the
// test with its own state, pins and cgroup, and the real bailiff, on whatever tier
// this kernel reaches. In a guest of scripts/vm the binaries are those of build/;
// elsewhere they are built anew.
package tests
