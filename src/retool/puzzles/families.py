"""Families of arithmetic problems in words, each with the solution a careful person would write without a computer.

A solution has three parts: the *plan* (what has to be worked out, said in one sentence), the *work* (the manual steps)
and the conclusion. The plan depends on understanding the question; the work on calculating without a slip. Several
families need a loop or a search, not only an expression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, isqrt
from random import Random


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A question, the two parts of its worked solution, and the answer."""

    question: str
    plan: str
    work: str
    answer: str

    @property
    def solution(self) -> str:
        return f"{self.plan} {self.work} So the answer is \\boxed{{{self.answer}}}."


def remainder_of_product(rng: Random) -> Puzzle:
    a, b, n = rng.randint(112, 989), rng.randint(12, 98), rng.randint(13, 97)
    question = rng.choice(
        [
            f"What is the remainder when {a} times {b} is divided by {n}?",
            f"The product of {a} and {b} is divided by {n}. What remains?",
        ]
    )
    tens, units = b // 10 * 10, b % 10
    work = f"{a} * {tens} = {a * tens}. {a} * {units} = {a * units}. The sum is {a * b}. "
    work += f"{n} * {a * b // n} = {a * b - a * b % n}. {a * b % n} is left."
    return Puzzle(question, f"We need {a} * {b} mod {n}.", work, str(a * b % n))


def remainder_of_power(rng: Random) -> Puzzle:
    a, e, n = rng.randint(12, 98), rng.randint(5, 31), rng.randint(101, 499)
    question = rng.choice(
        [
            f"What is the remainder when {a} to the power {e} is divided by {n}?",
            f"The number {a} to the power {e} is divided by {n}. What remains?",
        ]
    )
    steps, power, exponent, result = [], a % n, 1, 1
    while exponent <= e:
        if e & exponent:
            result = result * power % n
            steps.append(f"{a}^{e & (2 * exponent - 1)} is {result}.")
        power, exponent = power * power % n, 2 * exponent
        if exponent <= e:
            steps.append(f"{a}^{exponent} is {power}.")
    return Puzzle(question, f"We need {a}^{e} mod {n}.", " ".join(steps), str(result))


def greatest_common_divisor(rng: Random) -> Puzzle:
    common = rng.randint(4, 24)
    a, b = sorted((common * rng.randint(7, 40), common * rng.randint(7, 40)), reverse=True)
    question = rng.choice(
        [
            f"What is the greatest common divisor of {a} and {b}?",
            f"Ropes of {a} and {b} cm are cut into equal pieces with nothing left. How long can a piece be at most?",
        ]
    )
    steps, x, y = [], a, b
    while y:
        steps.append(f"{x} mod {y} = {x % y}.")
        x, y = y, x % y
    return Puzzle(question, f"We need the gcd of {a} and {b}.", " ".join(steps), str(x))


def least_common_multiple(rng: Random) -> Puzzle:
    common = rng.randint(2, 24)
    a, b = common * rng.randint(3, 30), common * rng.randint(3, 30)
    question = rng.choice(
        [
            f"What is the least common multiple of {a} and {b}?",
            f"Two lamps flash every {a} and every {b} seconds. After how many seconds do they flash together again?",
        ]
    )
    divisor = gcd(a, b)
    work = f"They share {divisor}. {a} / {divisor} = {a // divisor}. {a // divisor} * {b} = {a // divisor * b}."
    return Puzzle(question, f"We need the lcm of {a} and {b}.", work, str(a // divisor * b))


def digit_sum_of_power(rng: Random) -> Puzzle:
    a, e = rng.randint(3, 99), rng.randint(4, 8)
    question = rng.choice(
        [
            f"What is the sum of the digits of {a} to the power {e}?",
            f"Add up the digits of {a} to the power {e}. What is the total?",
        ]
    )
    half = a ** (e // 2)
    digits = str(a**e)
    work = f"{a}^{e // 2} = {half}. {a}^{e} = {digits}. {'+'.join(digits)} = {sum(map(int, digits))}."
    return Puzzle(question, f"We need the digit sum of {a}^{e}.", work, str(sum(map(int, digits))))


def count_multiples(rng: Random) -> Puzzle:
    a, b, limit = rng.randint(3, 12), rng.randint(13, 29), rng.randint(200, 990)
    question = rng.choice(
        [
            f"How many numbers from 1 to {limit} are divisible by {a} or by {b}?",
            f"Of the tickets 1 to {limit}, each multiple of {a} and each multiple of {b} wins. How many win?",
        ]
    )
    both = a * b // gcd(a, b)
    counts = limit // a, limit // b, limit // both
    answer = counts[0] + counts[1] - counts[2]
    work = f"Multiples of {a}: {counts[0]}. Multiples of {b}: {counts[1]}. Of {both}: {counts[2]}. "
    work += f"{counts[0]} + {counts[1]} - {counts[2]} = {answer}."
    return Puzzle(question, f"We count n from 1 to {limit} with {a} | n or {b} | n.", work, str(answer))


def count_by_digit_sum(rng: Random) -> Puzzle:
    low = rng.randint(100, 899)
    high, total = low + rng.randint(30, 79), rng.randint(6, 18)
    question = rng.choice(
        [
            f"How many numbers from {low} to {high} have digits that sum to {total}?",
            f"A house in a street has a number from {low} to {high}. In how many of them do the digits sum to {total}?",
        ]
    )
    found = [n for n in range(low, high + 1) if sum(map(int, str(n))) == total]
    work = f"They are {', '.join(map(str, found))}. That makes {len(found)}." if found else "There are none."
    return Puzzle(question, f"We count n from {low} to {high} with digit sum {total}.", work, str(len(found)))


def two_equations(rng: Random) -> Puzzle:
    x, y = rng.randint(3, 39), rng.randint(3, 39)
    while True:
        a, b, c, d = (rng.randint(2, 9) for _ in range(4))
        determinant = a * d - b * c
        if determinant > 1:
            break
    p, q = a * x + b * y, c * x + d * y
    question = rng.choice(
        [
            f"{a} pens and {b} books cost {p}. {c} pens and {d} books cost {q}. What does a pen cost?",
            f"{a} apples and {b} pears weigh {p}. {c} apples and {d} pears weigh {q}. What does an apple weigh?",
        ]
    )
    work = f"{a * d}x + {b * d}y = {p * d}. {c * b}x + {d * b}y = {q * b}. {determinant}x = {determinant * x}. x = {x}."
    return Puzzle(question, f"We solve {a}x + {b}y = {p} and {c}x + {d}y = {q} for x.", work, str(x))


def number_base(rng: Random) -> Puzzle:
    n, base = rng.randint(100, 999), rng.randint(4, 9)
    question = rng.choice([f"Write the number {n} in base {base}.", f"What is {n} when it is written in base {base}?"])
    steps, rest, digits = [], n, ""
    while rest:
        steps.append(f"{rest} = {base} * {rest // base} + {rest % base}.")
        digits, rest = str(rest % base) + digits, rest // base
    return Puzzle(question, f"We write {n} in base {base}.", " ".join(steps), digits)


def sum_of_powers(rng: Random) -> Puzzle:
    low, power = rng.randint(2, 19), rng.choice([2, 3])
    high = low + rng.randint(5, 40)
    name = {2: "squares", 3: "cubes"}[power]
    question = rng.choice(
        [
            f"What is the sum of the {name} of the numbers from {low} to {high}?",
            f"Add up the {name} of all numbers from {low} to {high}. What is the total?",
        ]
    )

    def up_to(n: int) -> int:
        return n * (n + 1) * (2 * n + 1) // 6 if power == 2 else (n * (n + 1) // 2) ** 2

    answer = up_to(high) - up_to(low - 1)
    work = f"From 1 to {high} it is {up_to(high)}. From 1 to {low - 1} it is {up_to(low - 1)}. "
    work += f"{up_to(high)} - {up_to(low - 1)} = {answer}."
    return Puzzle(question, f"We sum n^{power} for n from {low} to {high}.", work, str(answer))


def largest_prime_factor(rng: Random) -> Puzzle:
    n = rng.randint(100, 2999)
    question = rng.choice(
        [f"What is the largest prime factor of {n}?", f"Which is the largest prime number that divides {n}?"]
    )
    steps, rest, factor, largest = [], n, 2, 1
    while factor <= isqrt(rest):
        if rest % factor:
            factor += 1
            continue
        rest, largest = rest // factor, factor
        steps.append(f"{rest * factor} = {factor} * {rest}.")
    steps.append(f"{rest} is prime.")
    return Puzzle(question, f"We need the largest prime factor of {n}.", " ".join(steps), str(max(rest, largest)))


FAMILIES: dict[str, Callable[[Random], Puzzle]] = {
    family.__name__: family
    for family in (
        remainder_of_product,
        remainder_of_power,
        greatest_common_divisor,
        least_common_multiple,
        digit_sum_of_power,
        count_multiples,
        count_by_digit_sum,
        two_equations,
        number_base,
        sum_of_powers,
        largest_prime_factor,
    )
}
