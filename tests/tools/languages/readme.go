// The snippet of the README: its lock while it works, after an end of the context, and while another owner
// holds the lock.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

func locked(ctx context.Context, rdb *redis.Client, wait int, work func(int64)) error {
	// SNIPPET
	work(token)
	return nil
}

func main() {
	rdb := redis.NewClient(&redis.Options{Addr: os.Args[1], ReadTimeout: 15 * time.Second})
	fence := func() int64 {
		token, _ := rdb.Do(context.Background(), "FENCE", "invoice:42").Int64()
		return token
	}
	ctx, cancel := context.WithCancel(context.Background())
	err := locked(ctx, rdb, 10000, func(token int64) {
		fmt.Println("held:", token > 0 && token == fence())
		cancel()
	})
	fmt.Println("released:", err == nil && fence() == 0)
	rdb.Do(context.Background(), "LOCK", "invoice:42", "other", "EX", 30)
	err = locked(context.Background(), rdb, 50, func(int64) {})
	fmt.Println("refused:", errors.Is(err, redis.Nil))
	rdb.Do(context.Background(), "UNLOCK", "invoice:42", "other")
}
