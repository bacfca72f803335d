/*
 * QUERY_HCA_CAP of a ConnectX-6 Dx with current firmware: the bits that the PMD asks for, where the PRM has them.
 * Offsets are the same in the PMD of 22.11 and of 24.11. What isn't here is zero.
 */
#include "judge.h"

struct cap {
	uint8_t op_mod;
	uint16_t offset;
	uint8_t width;
	uint64_t value;
	const char *name;
};

#define BIT(n) (1ULL << (n))
/* GENEVE TLV options, definers, meter and hit ASO, connection tracking; no flex items. */
#define OBJECT_TYPES (BIT(0x0b) | BIT(0x18) | BIT(0x24) | BIT(0x25) | BIT(0x31))
/* ICMP and ICMPv6; MPLS over GRE and UDP. */
#define FLEX_PARSERS (BIT(8) | BIT(9) | (judge.mpls ? BIT(4) | BIT(5) : 0))
/* "Select" is 61. */
#define DEFINER_FORMATS BIT(61)
/* 8 DW, 11 DW; ranges. */
#define STE_FORMATS (BIT(4) | BIT(5) | (judge.range ? BIT(7) : 0))

void answer_hca_cap(unsigned op_mod, void *capability)
{
	const struct cap caps[] = {
#include "capabilities.rows"
	};

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		if (caps[i].op_mod == op_mod >> 1)
			set_bits(capability, caps[i].offset, caps[i].width, caps[i].value);
}
