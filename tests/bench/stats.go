// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
)

const confidence = 0.95

// estimate is a median and the interval that holds the true one.
type estimate struct {
	Median, Low, High float64
}

// medianOf estimates the median of what values are drawn from. The interval is
// between two order statistics, by the binomial distribution: it assumes nothing
// about the shape of the noise. It needs 6 values for a confidence of 95 %.
func medianOf(values []float64) estimate {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return estimate{math.NaN(), math.NaN(), math.NaN()}
	}
	out := outside(n)
	return estimate{Median: middle(sorted), Low: sorted[out], High: sorted[n-1-out]}
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// outside returns how many of n sorted values may be left out at each end so
// that the rest still holds the median with the confidence wanted.
func outside(n int) int {
	tail, term := 0.0, math.Pow(0.5, float64(n)) // P(at most k of n are below the median)
	for k := range n / 2 {
		tail += term
		if 2*tail > 1-confidence {
			return max(k-1, 0)
		}
		term *= float64(n-k) / float64(k+1)
	}
	return max(n/2-1, 0)
}
