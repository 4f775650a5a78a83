// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// commandNames are the commands this project sends or meets in tests, as TPM
// 2.0 part 2, section 6.5.2 spells them without the prefix TPM_CC_.
var commandNames = map[tpm2.TPMCC]string{
	tpm2.TPMCCActivateCredential:        "ActivateCredential",
	tpm2.TPMCCCertify:                   "Certify",
	tpm2.TPMCCCertifyCreation:           "CertifyCreation",
	tpm2.TPMCCClear:                     "Clear",
	tpm2.TPMCCContextLoad:               "ContextLoad",
	tpm2.TPMCCContextSave:               "ContextSave",
	tpm2.TPMCCCreate:                    "Create",
	tpm2.TPMCCCreateLoaded:              "CreateLoaded",
	tpm2.TPMCCCreatePrimary:             "CreatePrimary",
	tpm2.TPMCCDictionaryAttackLockReset: "DictionaryAttackLockReset",
	tpm2.TPMCCEvictControl:              "EvictControl",
	tpm2.TPMCCFlushContext:              "FlushContext",
	tpm2.TPMCCGetCapability:             "GetCapability",
	tpm2.TPMCCGetRandom:                 "GetRandom",
	tpm2.TPMCCHierarchyChanegAuth:       "HierarchyChangeAuth",
	tpm2.TPMCCImport:                    "Import",
	tpm2.TPMCCLoad:                      "Load",
	tpm2.TPMCCLoadExternal:              "LoadExternal",
	tpm2.TPMCCMakeCredential:            "MakeCredential",
	tpm2.TPMCCNVDefineSpace:             "NV_DefineSpace",
	tpm2.TPMCCNVRead:                    "NV_Read",
	tpm2.TPMCCNVReadPublic:              "NV_ReadPublic",
	tpm2.TPMCCNVUndefineSpace:           "NV_UndefineSpace",
	tpm2.TPMCCNVWrite:                   "NV_Write",
	tpm2.TPMCCPCRExtend:                 "PCR_Extend",
	tpm2.TPMCCPCRRead:                   "PCR_Read",
	tpm2.TPMCCPCRReset:                  "PCR_Reset",
	tpm2.TPMCCPolicyCommandCode:         "PolicyCommandCode",
	tpm2.TPMCCPolicyGetDigest:           "PolicyGetDigest",
	tpm2.TPMCCPolicyOR:                  "PolicyOR",
	tpm2.TPMCCPolicyPCR:                 "PolicyPCR",
	tpm2.TPMCCPolicySecret:              "PolicySecret",
	tpm2.TPMCCQuote:                     "Quote",
	tpm2.TPMCCReadClock:                 "ReadClock",
	tpm2.TPMCCReadPublic:                "ReadPublic",
	tpm2.TPMCCSelfTest:                  "SelfTest",
	tpm2.TPMCCShutdown:                  "Shutdown",
	tpm2.TPMCCSign:                      "Sign",
	tpm2.TPMCCStartAuthSession:          "StartAuthSession",
	tpm2.TPMCCStartup:                   "Startup",
	tpm2.TPMCCUnseal:                    "Unseal",
	tpm2.TPMCCVerifySignature:           "VerifySignature",
}

// CommandName names the command in a raw TPM command buffer after TPM 2.0
// part 2, section 6.5.2, without the prefix TPM_CC_: "Quote", "NV_Read". A code
// without a name here is given in hexadecimal, a buffer that is too short to
// hold one is "malformed".
func CommandName(command []byte) string {
	if len(command) < headerSize {
		return "malformed"
	}
	code := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:headerSize]))
	if name, ok := commandNames[code]; ok {
		return name
	}
	return fmt.Sprintf("0x%08x", uint32(code))
}

// headerSize is the length of a command or response header: a two-byte tag, a
// four-byte size, a four-byte code (TPM 2.0 part 1, section 18).
const headerSize = 10
