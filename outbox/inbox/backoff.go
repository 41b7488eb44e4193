package inbox

import (
	"math/rand/v2"
	"time"
)

// backoff gives the wait after the attempt of that number, from 1.
func (c *Config) backoff(attempt int) time.Duration {
	d := c.Backoff
	for range attempt - 1 {
		if d >= c.MaxBackoff/2 {
			d = c.MaxBackoff
			break
		}
		d *= 2
	}
	return d - rand.N(d/2+1)
}
