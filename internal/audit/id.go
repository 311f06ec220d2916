// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"sync/atomic"
	"time"
)

// idMaker returns a maker of event ids: 16 hexadecimal digits of the time in
// nanoseconds since 1970, a dash, and 4 of a count, which tells events of one
// nanosecond apart. It may be called from several goroutines.
func idMaker() func(time.Time) string {
	var count atomic.Uint32
	return func(t time.Time) string {
		var id [21]byte
		hex(id[:16], uint64(t.UnixNano()))
		id[16] = '-'
		hex(id[17:], uint64(count.Add(1)))
		return string(id[:])
	}
}

// hex fills b with the lowest digits of n.
func hex(b []byte, n uint64) {
	const digits = "0123456789abcdef"
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n&15]
		n >>= 4
	}
}
