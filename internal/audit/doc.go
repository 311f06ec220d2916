// SPDX-License-Identifier: Apache-2.0

// Package audit is the log of what sessions did and of what the daemon did to
// them: one JSON object a line in DIR/events.jsonl, rotated by size to
// DIR/events-TIME.jsonl, where TIME is the UTC time of the file's first event
// and the files sort by name.
//
// A Writer appends without ever making its caller wait; what it has to leave
// out it counts, by agent, and tells in the log itself as soon as it can write
// again. Read goes through the files of a directory in order, follows the log
// across rotation, and needs no daemon. A Printer renders events for people.
//
// # Bytes that are not UTF-8
//
// Paths and process names are any bytes; JSON strings are not. So in every
// string of a line, keys of "fields" included, a byte that is no part of valid
// UTF-8 is written as \xHH (two lower-case hexadecimal digits) and a backslash
// as \\; both before JSON's own quoting, which doubles the backslashes once
// more. The path "a\b" stands in the file as "a\\\\b", the byte 0xff as
// "\\xff". Nothing else is changed, so undoing the two gives the bytes back.
package audit
