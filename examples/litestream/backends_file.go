//go:build !backends

package main

const backendsBuilt = false
