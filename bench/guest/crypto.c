// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL's library, for a fixed amount of work: the openssl program measures for a fixed time.

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char buffer[1 << 20], result[1 << 20];

static void need(int ok, const char *what)
{
	if (ok > 0)
		return;
	fprintf(stderr, "crypto: %s failed\n", what);
	exit(1);
}

static EVP_PKEY *key(const char *path)
{
	FILE *f = fopen(path, "r");
	EVP_PKEY *k = f ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;
	need(k != NULL, path);
	fclose(f);
	return k;
}

static void show(const char *name, const unsigned char *p, size_t n)
{
	printf("%s ", name);
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
	putchar('\n');
}

static void sha256(long mib)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	unsigned n;
	need(EVP_DigestInit_ex(c, EVP_sha256(), NULL), "sha256");
	while (mib--)
		need(EVP_DigestUpdate(c, buffer, sizeof(buffer)), "sha256");
	need(EVP_DigestFinal_ex(c, result, &n), "sha256");
	show("sha256", result, n);
}

static void encrypt(const char *name, const EVP_CIPHER *cipher, long mib)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n;
	need(EVP_EncryptInit_ex(c, cipher, NULL, buffer + 100, buffer + 200), name);
	while (mib--)
		need(EVP_EncryptUpdate(c, result, &n, buffer, sizeof(buffer)), name);
	show(name, result + sizeof(result) - 64, 64);
}

static void aes(long mib)
{
	encrypt("aes-128-cbc", EVP_aes_128_cbc(), mib);
}

static void gcm(long mib)
{
	encrypt("aes-256-gcm", EVP_aes_256_gcm(), mib);
}

static void chacha(long mib)
{
	encrypt("chacha20", EVP_chacha20(), mib);
}

// RSA signatures are the same every time; those of ECDSA are random and can only be counted.
static void sign_and_verify(EVP_PKEY *k, long n, long verifications, int show_it)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	long good = 0;
	for (long i = 0; i < n; i++) {
		size_t len = sizeof(result);
		buffer[0] = i;
		EVP_MD_CTX_reset(c);
		need(EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, k), "sign");
		need(EVP_DigestSign(c, result, &len, buffer, 1000), "sign");
		if (show_it)
			show("signature", result, len);
		for (long v = 0; v < verifications; v++) {
			EVP_MD_CTX_reset(c);
			need(EVP_DigestVerifyInit(c, NULL, EVP_sha256(), NULL, k), "verify");
			good += EVP_DigestVerify(c, result, len, buffer, 1000) == 1;
		}
	}
	printf("good %ld\n", good);
}

static void rsa(long n)
{
	sign_and_verify(key("/bench/data/rsa.pem"), n, 10, 1);
}

static void ecdsa(long n)
{
	sign_and_verify(key("/bench/data/ec.pem"), n, 1, 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(long);
	} all[] = { { "sha256", sha256 }, { "aes", aes }, { "gcm", gcm }, { "chacha", chacha }, { "rsa", rsa },
		    { "ecdsa", ecdsa } };
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = i * 2654435761u >> 13;
	for (size_t i = 0; argc == 3 && i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(argv[1], all[i].name) == 0) {
			all[i].run(atol(argv[2]));
			return fflush(stdout) != 0;
		}
	return 2;
}
