// SPDX-License-Identifier: Apache-2.0

// Package sockdiag lists and destroys the TCP and UDP sockets of a cgroup, over
// netlink. A call that is blocked on a socket that is destroyed returns with
// ECONNABORTED, and the peer of a TCP connection gets a reset.
//
// Netlink speaks of one network namespace: In runs a function in another.
package sockdiag
