// SPDX-License-Identifier: Apache-2.0

package policy

// APIVersion is the only apiVersion this build reads.
const APIVersion = "bailiff.dev/v1alpha1"

// Limits of documents and of what they compile to. Exceeding one is an error
// with its place; nothing is dropped to fit.
const (
	MaxFileSize    = 64 << 20  // bytes of one policy file
	MaxRules       = 100_000   // files and network lines of one document
	MaxDocuments   = 10_000    // documents in one file
	MaxName        = 253       // bytes of metadata.name
	MaxSPIFFEID    = 2048      // bytes of a SPIFFE ID
	MaxPath        = 4096      // bytes of a path as written
	MaxDepth       = 60        // components of a path
	MaxComponent   = 255       // bytes of one component
	MaxAbstract    = 107       // bytes of an abstract Unix socket's name
	MaxUnixPath    = 107       // bytes of a Unix socket's path without wildcards
	MaxPorts       = 1024      // entries of one ports list
	MaxVariables   = 1024      // entries of environment.drop and of environment.set
	MaxVariable    = 32 << 10  // bytes of one variable's value
	MaxStates      = 400_000   // states of a compiled automaton
	MaxEdges       = 2_000_000 // transitions of a compiled automaton, glob edges included
	MaxGlobNodes   = 4096      // nodes of the byte automaton of all wildcards of an agent
	MaxPrefixes    = 200_000   // prefixes of a compiled network table
	MaxPortRanges  = 400_000   // port ranges of a compiled network table
	maxGlobClasses = 1 << 15
)
