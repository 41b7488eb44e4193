// Package deploy holds the tests of docker-compose.yml and the Dockerfile.
package deploy
