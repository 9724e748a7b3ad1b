# SPDX-License-Identifier: Apache-2.0
#
# Dictionaries, lists, strings, classes, generators, big integers: what Python programs are made of.

import sys


class Account:
    def __init__(self, name):
        self.name = name
        self.balance = 0
        self.history = []

    def book(self, amount):
        self.balance += amount
        self.history.append(amount)
        return self.balance


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def primes(limit):
    found = []
    for n in range(2, limit):
        if all(n % p for p in found if p * p <= n):
            found.append(n)
        if len(found) > 400:
            return found
    return found


def main(lines):
    count = {}
    with open("/bench/data/text") as f:
        for _, line in zip(range(lines), f):
            for word in line.split():
                count[word] = count.get(word, 0) + 1
    top = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:10]
    accounts = [Account(f"a{i}") for i in range(50)]
    for i in range(lines * 3):
        accounts[i * 7 % 50].book(i % 13 - 5)
    big = 1
    for i in range(1, 600):
        big *= i
    rows = [[i * j % 101 for j in range(60)] for i in range(60)]
    columns = [list(c) for c in zip(*rows)]
    product = [[sum(a * b for a, b in zip(r, c)) for c in columns] for r in rows[:20]]
    print(top, sum(a.balance * len(a.history) for a in accounts), fib(19), sum(primes(4000)))
    print(str(big)[:40], sum(map(sum, product)), sum(x * 0.5 for x in range(lines)))


main(int(sys.argv[1]))
