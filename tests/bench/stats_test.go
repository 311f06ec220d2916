// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"testing"
)

func TestMedianOf(t *testing.T) {
	tests := []struct {
		values []float64
		want   estimate
	}{
		{[]float64{3}, estimate{3, 3, 3}},
		{[]float64{4, 1, 3, 2}, estimate{2.5, 1, 4}},
		// Of 11, the 2nd to the 10th hold the median with 98.8 %, the 3rd to the 9th with 93.5 %.
		{[]float64{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, estimate{6, 2, 10}},
		// Of 6, all: 96.9 %.
		{[]float64{1, 2, 3, 4, 5, 6}, estimate{3.5, 1, 6}},
		// Of 20, the 6th to the 15th: 95.9 %.
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, estimate{10.5, 6, 15}},
	}
	for _, test := range tests {
		if got := medianOf(test.values); got != test.want {
			t.Errorf("%v: %v, want %v", test.values, got, test.want)
		}
	}
}

// The interval holds the true median as often as it says.
func TestCoverage(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const trials = 20_000
	held := 0
	for range trials {
		values := make([]float64, 11)
		for i := range values {
			values[i] = random.ExpFloat64()
		}
		const truth = 0.6931471805599453 // ln 2
		if e := medianOf(values); e.Low <= truth && truth <= e.High {
			held++
		}
	}
	if share := float64(held) / trials; share < confidence || share > 0.995 {
		t.Errorf("held in %.3f of the trials", share)
	}
}
