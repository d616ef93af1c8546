package politetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Zipf spreads n URLs over hosts so that the i-th host gets a share of 1/i, each at least one. The counts fall, and
// their sum is n where n is not below hosts.
func Zipf(n, hosts int) []int {
	sum := 0.0
	for i := range hosts {
		sum += 1 / float64(i+1)
	}
	counts := make([]int, hosts)
	left := n
	for i := hosts - 1; i >= 0; i-- {
		counts[i] = max(1, int(math.Round(float64(n)/sum/float64(i+1))))
		left -= counts[i]
	}
	counts[0] = max(1, counts[0]+left)
	return counts
}

// Bound is the least time in which any scheduler could visit hosts with so many URLs each at a rate per second.
func Bound(counts []int, rate float64) time.Duration {
	return time.Duration(float64(slices.Max(counts)) / rate * float64(time.Second))
}

// List returns so many URLs of each host, from the first on, in an order that is mixed and always the same.
func (o *Origin) List(counts []int) []string {
	var urls []string
	for i, n := range counts {
		for k := range n {
			urls = append(urls, o.URL(i, fmt.Sprintf("/p/%d", k)))
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(urls), func(i, j int) { urls[i], urls[j] = urls[j], urls[i] })
	return urls
}
