// SPDX-License-Identifier: Apache-2.0

// Package controlv1 is the control API of bailiffd as plain data, generated from
// control.proto. The clients and handlers are in controlv1connect.
package controlv1

//go:generate ../../../scripts/protoc control.proto
