// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Subject is a way to log in.
type Subject struct {
	Name string
	// Login logs caller number i in, once: challenge and login where the method
	// has both. Different callers run at the same time.
	Login func(ctx context.Context, i int) error
}

// Rate is how many logins a second so many callers get in a slice of time. A
// login counts if it began within the slice; the time is that of all of them.
func Rate(ctx context.Context, s Subject, callers int, slice time.Duration) (perSecond float64, err error) {
	group, ctx := errgroup.WithContext(ctx)
	var count atomic.Int64
	began := time.Now()
	for i := range callers {
		group.Go(func() error {
			for time.Since(began) < slice {
				if err := s.Login(ctx, i); err != nil {
					return fmt.Errorf("%s: %w", s.Name, err)
				}
				count.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return float64(count.Load()) / time.Since(began).Seconds(), nil
}

// Plan says how subjects are compared.
type Plan struct {
	Callers int
	Rounds  int // of slices, one for each subject
	Slice   time.Duration
}

// Compare has the subjects take turns and returns, by name, the rate of each
// slice: entry i of each list is of round i, whose slices lie side by side.
func (p Plan) Compare(ctx context.Context, subjects []Subject) (map[string][]float64, error) {
	for _, s := range subjects { // caches and connections
		if _, err := Rate(ctx, s, p.Callers, p.Slice/4); err != nil {
			return nil, err
		}
	}
	rates := map[string][]float64{}
	for round := range p.Rounds {
		order := slices.Clone(subjects)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			rate, err := Rate(ctx, s, p.Callers, p.Slice)
			if err != nil {
				return nil, err
			}
			rates[s.Name] = append(rates[s.Name], rate)
		}
	}
	return rates, nil
}

// Ratio is the median over rounds of a's rate ÷ b's.
func Ratio(a, b []float64) float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return Median(ratios)
}

// Median is the middle value.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
