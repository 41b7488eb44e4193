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
			return c.longest()
		}
		d *= 2
	}
	return jitter(d)
}

// longest gives the longest wait.
func (c *Config) longest() time.Duration { return jitter(c.MaxBackoff) }

func jitter(d time.Duration) time.Duration { return d - rand.N(d/2+1) }
