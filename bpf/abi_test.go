// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/sha256"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"bailiff.dev/bailiff/policy"
)

// abiHeader returns abi.h without its comments.
func abiHeader(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("abi.h")
	if err != nil {
		t.Skip("SKIP-REASON: source: abi.h is not beside the test")
	}
	return regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(text), "")
}

func TestABIVersion(t *testing.T) {
	found := regexp.MustCompile(`(?m)^#define ABI_VERSION (\d+)$`).FindStringSubmatch(abiHeader(t))
	if found == nil || number(found[1]) != abiVersion {
		t.Errorf("ABI_VERSION is %v in abi.h, %d in names.go", found, abiVersion)
	}
}

// abiDigest is that of abi.h's text without comments and blanks.
const abiDigest = "613bdc556f3896d6"

// A build takes over the maps of another that has the same ABI_VERSION: a change of
// abi.h has to be weighed.
func TestABIChange(t *testing.T) {
	text := strings.Join(strings.Fields(abiHeader(t)), " ")
	if sum := fmt.Sprintf("%.8x", sha256.Sum256([]byte(text))); sum != abiDigest {
		t.Errorf("abi.h has changed. Unless programs of before and after can run over the same maps, in either "+
			"order, raise ABI_VERSION. Then set abiDigest to %q", sum)
	}
}

// Every value of an enum that events carry has its own word.
func TestNameTables(t *testing.T) {
	for enum, c := range map[string]struct {
		prefix string
		names  []string
	}{
		"operation": {"OP_", operationNames()},
		"verdict":   {"VERDICT_", verdictNames()},
		"reason":    {"REASON_", reasonNames()},
		"kind":      {"KIND_", kindNames()},
	} {
		body := regexp.MustCompile(`(?s)enum ` + enum + ` \{(.*?)\}`).FindStringSubmatch(abiHeader(t))
		if body == nil {
			t.Fatalf("abi.h has no enum %s", enum)
		}
		n := 0
		for _, word := range regexp.MustCompile(c.prefix+`\w+`).FindAllString(body[1], -1) {
			value := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(word, c.prefix)), "_", "-")
			switch {
			case value == "count":
				if n != len(c.names) {
					t.Errorf("%s: %d values, %d names", enum, n, len(c.names))
				}
				continue
			case value == "none":
			case name(c.names, n) != value:
				t.Errorf("%s = %d is called %q, want %q", word, n, name(c.names, n), value)
			}
			n++
		}
	}
	if name(operationNames(), 1000) != "unknown" || name(operationNames(), -1) != "unknown" {
		t.Error("a number beyond the table has a name")
	}
}

// The rights have the same bits on both sides.
func TestAccessBits(t *testing.T) {
	for word, bit := range map[string]policy.Access{
		"ACCESS_READ": policy.Read, "ACCESS_WRITE": policy.Write, "ACCESS_CREATE": policy.Create,
		"ACCESS_DELETE": policy.Delete, "ACCESS_EXECUTE": policy.Execute, "ACCESS_CONNECT": policy.Connect,
	} {
		found := regexp.MustCompile(word + ` = 1 << (\d)`).FindStringSubmatch(abiHeader(t))
		if found == nil || 1<<number(found[1]) != int(bit) {
			t.Errorf("%s is %v in abi.h, %d in package policy", word, found, bit)
		}
	}
	if policy.NumAccess != int(enforcerAccessACCESS_COUNT) {
		t.Errorf("%d rights in abi.h, %d in package policy", enforcerAccessACCESS_COUNT, policy.NumAccess)
	}
}

func TestPortPrefixes(t *testing.T) {
	for _, r := range [][2]uint16{{0, 65535}, {0, 0}, {65535, 65535}, {1, 65534}, {8000, 8099}, {79, 81}, {1, 2}, {32767, 32768}} {
		covered := map[uint32]int{}
		prefixes := portPrefixes(r[0], r[1])
		for _, p := range prefixes {
			for i := range uint32(1) << (16 - p.bits) {
				covered[uint32(p.port)+i]++
			}
		}
		for port := range uint32(65536) {
			want := 0
			if port >= uint32(r[0]) && port <= uint32(r[1]) {
				want = 1
			}
			if covered[port] != want {
				t.Fatalf("%v: port %d is covered %d times", r, port, covered[port])
			}
		}
		if len(prefixes) > 30 {
			t.Errorf("%v: %d prefixes", r, len(prefixes))
		}
	}
}
