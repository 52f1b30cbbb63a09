// The snippet that shows etcd's own locks, with its client.
package main

import (
	"context"
	"fmt"
	"os"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

func locked(ctx context.Context, client *clientv3.Client, work func(int64)) error {
	// SNIPPET
	work(token)
	return err
}

func main() {
	client, err := clientv3.New(clientv3.Config{Endpoints: os.Args[1:]})
	if err != nil {
		panic(err)
	}
	keys := func(ctx context.Context) int64 {
		found, err := client.Get(ctx, "/locks/invoice/42", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			panic(err)
		}
		return found.Count
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = locked(ctx, client, func(token int64) {
		fmt.Println("held:", token > 0 && keys(ctx) == 1)
		cancel()
	})
	fmt.Println("released:", err == nil && keys(context.Background()) == 0)
}
