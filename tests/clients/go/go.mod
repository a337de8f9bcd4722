module numpackfs/tests/clients/go

go 1.18

require github.com/kshedden/gonpy v0.0.0-20210519231815-fa3c8dd8e59b
