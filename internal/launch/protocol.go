// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
)

// order is what the parent tells the stub. It travels as gob, not JSON: words
// of a command line are bytes and need not be UTF-8.
type order struct {
	AdminSocket string
	AgentSocket string
	Agent       string
	Task        string
	Context     map[string]string
	Command     []string
	Kept        []kept    // by number
	Identity    *Identity // nil: stay who we are
	Parent      int       // process id of the parent
}

// report is what the stub tells the parent: the session once it is in it,
// then nothing more, or why it could not go on.
type report struct {
	Session string
	Failure *Error
}

// outcome is all the stub's reports together.
type outcome struct {
	session string
	failure *Error
}

func readReports(r io.Reader) (outcome, error) {
	var o outcome
	for dec := gob.NewDecoder(r); ; {
		var rep report
		if err := dec.Decode(&rep); errors.Is(err, io.EOF) {
			return o, nil
		} else if err != nil {
			return o, fmt.Errorf("read the launcher's report: %w", err)
		}
		if rep.Session != "" {
			o.session = rep.Session
		}
		if rep.Failure != nil {
			o.failure = rep.Failure
		}
	}
}
