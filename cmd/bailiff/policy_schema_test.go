// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"testing"
)

func TestSchemaIsTheDocumentedOne(t *testing.T) {
	want, err := os.ReadFile("../../docs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	env, stdout, _ := testEnvironment("policy", "schema")
	if code := run(context.Background(), env); code != exitOK || stdout.String() != string(want) {
		t.Error("stale: cp docs/policy.schema.json cmd/bailiff/")
	}
}
