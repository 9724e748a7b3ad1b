// SPDX-License-Identifier: Apache-2.0
//
// Floating-point and SIMD programs. They use no function of the library whose last bit depends on the processor, no
// fused multiplication (-ffp-contract=off), and add in one order, so that the output is the same everywhere.

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDE __attribute__((target_clones("avx2", "default")))

typedef float v8sf __attribute__((vector_size(32)));
typedef int32_t v8si __attribute__((vector_size(32)));
typedef int16_t v16hi __attribute__((vector_size(32)));

static double *filled(size_t n)
{
	double *a = malloc(n * sizeof(*a));
	if (!a)
		abort();
	for (size_t i = 0; i < n; i++)
		a[i] = (double)(i * 7919 % 1009) / 1009 - 0.5;
	return a;
}

static double nbody(long steps)
{
	enum { N = 5 };
	double x[N][3], v[N][3], m[N], energy = 0;
	for (int i = 0; i < N; i++) {
		m[i] = i ? 0.001 * i : 39.5;
		for (int k = 0; k < 3; k++) {
			x[i][k] = i ? (i * 5 + k * 3) % 7 + i * 4.5 : 0;
			v[i][k] = i ? ((i + k) % 3 - 1) * 0.7 / i : 0;
		}
	}
	while (steps--) {
		for (int i = 0; i < N; i++) {
			for (int j = i + 1; j < N; j++) {
				double d[3], s = 0;
				for (int k = 0; k < 3; k++) {
					d[k] = x[i][k] - x[j][k];
					s += d[k] * d[k];
				}
				double f = 0.001 / (s * sqrt(s));
				for (int k = 0; k < 3; k++) {
					v[i][k] -= d[k] * m[j] * f;
					v[j][k] += d[k] * m[i] * f;
				}
			}
		}
		for (int i = 0; i < N; i++)
			for (int k = 0; k < 3; k++)
				x[i][k] += 0.001 * v[i][k];
	}
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 3; k++)
			energy += m[i] * v[i][k] * v[i][k] + x[i][k];
	return energy;
}

static double matmul(long rounds)
{
	enum { N = 256 };
	double *a = filled(N * N), *b = filled(N * N), *c = filled(N * N), sum = 0;
	while (rounds--)
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++) {
				double f = a[i * N + k] * 0.01;
				for (int j = 0; j < N; j++)
					c[i * N + j] += f * b[k * N + j];
			}
	for (int i = 0; i < N * N; i++)
		sum += c[i];
	return sum;
}

static double mandelbrot(long size)
{
	long inside = 0;
	double sum = 0;
	for (long py = 0; py < size; py++)
		for (long px = 0; px < size; px++) {
			double cr = 2.0 * px / size - 1.5, ci = 2.0 * py / size - 1.0, r = 0, i = 0, r2 = 0, i2 = 0;
			int n = 0;
			for (; n < 50 && r2 + i2 < 4; n++) {
				i = 2 * r * i + ci;
				r = r2 - i2 + cr;
				r2 = r * r;
				i2 = i * i;
			}
			inside += n == 50;
			sum += r;
		}
	return inside + sum;
}

// The x87: what long double compiles to, conversions and comparisons included.
static double x87(long steps)
{
	volatile long double factor = 1.0000001L;
	long double a = 1, b = 0.5L, c = 0;
	for (long i = 0; i < steps; i++) {
		a = a * factor + b / (i + 1);
		if (a > 3)
			a = sqrtl(a) - (long double)(int)a * 0.25L;
		b = fabsl(a - b) + 0.125L;
		c += a * b;
	}
	return c;
}

// A stencil over single precision vectors of 32 bytes.
WIDE static double stencil(long rounds)
{
	enum { N = 4096 };
	static v8sf from[N + 2], to[N + 2];
	float sum = 0;
	for (int i = 0; i < N + 2; i++)
		for (int k = 0; k < 8; k++)
			from[i][k] = (i * 8 + k) % 97 / 97.0f;
	while (rounds--) {
		for (int i = 1; i <= N; i++) {
			v8sf v = from[i] * 0.5f + (from[i - 1] + from[i + 1]) * 0.25f;
			v8si low = v < 0.9f;
			to[i] = (v8sf)(((v8si)v & low) | ((v8si)(v * 0.5f) & ~low));
		}
		memcpy(from + 1, to + 1, N * sizeof(v8sf));
	}
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 8; k++)
			sum += to[i][k];
	return sum;
}

// A picture filter: 16-bit integers, saturation by comparisons, shifts.
WIDE static double picture(long rounds)
{
	enum { N = 8192 };
	static v16hi line[N + 1];
	int64_t sum = 0;
	for (int i = 0; i < N + 1; i++)
		for (int k = 0; k < 16; k++)
			line[i][k] = (i * 16 + k) * 31 % 256;
	while (rounds--)
		for (int i = 0; i < N; i++) {
			v16hi v = (line[i] * 5 + line[i + 1] * 3 + 7) >> 3;
			v16hi over = v > 255, under = v < 16;
			line[i] = (v & ~over & ~under) | (over & 201) | (under & 40);
		}
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 16; k++)
			sum += line[i][k] * (k + 1);
	return sum;
}

// Bytes: what the string functions of the library do with the widest vectors that the processor has.
static double strings(long rounds)
{
	enum { N = 1 << 16 };
	static char a[N + 1], b[N + 1];
	size_t sum = 0;
	for (long r = 0; r < rounds; r++) {
		memset(a, 'a' + r % 20, N);
		a[N - 1 - r % 4096] = 'z';
		memcpy(b, a, N);
		sum += strlen(b) + (strchr(b, 'z') - b) + (memcmp(a, b, N) == 0);
		b[N - 5] = '!';
		sum += strcmp(a, b) > 0;
	}
	return sum;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		double (*run)(long);
	} all[] = { { "nbody", nbody }, { "matmul", matmul }, { "mandelbrot", mandelbrot }, { "x87", x87 },
		    { "stencil", stencil }, { "picture", picture }, { "strings", strings } };
	for (size_t i = 0; argc == 3 && i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(argv[1], all[i].name) == 0)
			return printf("%s %a\n", argv[1], all[i].run(atol(argv[2]))) < 0;
	return 2;
}
