// SPDX-License-Identifier: Apache-2.0

// Package control carries the control API of bailiffd (internal/control/v1) over
// Unix sockets: Connect RPC, so gRPC and curl with JSON speak it alike. The
// server knows each caller by what the kernel says of the connection (PeerFrom);
// the clients turn what can go wrong into one sentence (FormatError).
package control
