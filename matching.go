package counterfoil

// Matched returns how many of a number of demands can be met at once, each by a
// candidate of its own: the size of a largest matching. meets says whether a candidate
// meets a demand. Each demand looks for a candidate and asks those before it to move
// (Kuhn's algorithm).
func Matched(demands, candidates int, meets func(demand, candidate int) bool) int {
	holds := make([]int, candidates) // demand+1 that the candidate stands for
	var seat func(demand int, asked []bool) bool
	seat = func(demand int, asked []bool) bool {
		for c := range candidates {
			if asked[c] || !meets(demand, c) {
				continue
			}
			asked[c] = true
			if holds[c] == 0 || seat(holds[c]-1, asked) {
				holds[c] = demand + 1
				return true
			}
		}
		return false
	}
	n := 0
	for d := range demands {
		if seat(d, make([]bool, candidates)) {
			n++
		}
	}
	return n
}
