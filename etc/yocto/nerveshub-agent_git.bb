# Builds nerveshub-agent with OpenEmbedded's own Rust (1.88 or later). Copy it into a layer
# of yours as recipes-core/nerveshub-agent/nerveshub-agent_git.bb, set the repository and
# the revision, and have the list of crates written next to it:
#   bitbake -c update_crates nerveshub-agent
SUMMARY = "Device agent for NervesHub"
DESCRIPTION = "Keeps the device connected to its NervesHub server and its firmware up to date."
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = " \
    file://LICENSE-APACHE;md5=c48e0d393be9a0521af8065271196bf4 \
    file://LICENSE-MIT;md5=8c7517bdfcf15224b1f52cda54123078 \
"

# NERVESHUB_AGENT_REPOSITORY = "git://git.example.com/nerveshub-agent.git;protocol=https"
NERVESHUB_AGENT_REPOSITORY ?= ""
SRC_URI = "${NERVESHUB_AGENT_REPOSITORY};nobranch=1;destsuffix=git"
SRCREV = "${AUTOREV}"
PV = "0.1.0+git"
# UNPACKDIR is new in 5.1.
S = "${@'${UNPACKDIR}' if d.getVar('UNPACKDIR') else '${WORKDIR}'}/git"

inherit cargo cargo-update-recipe-crates systemd update-rc.d

# Written by the command above.
include ${BPN}-crates.inc

CARGO_BUILD_FLAGS += "--package nerveshub-agent"

SYSTEMD_SERVICE:${PN} = "nerveshub-agent.service"
INITSCRIPT_NAME = "nerveshub-agent"
INITSCRIPT_PARAMS = "defaults 80"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/nerveshub-agent ${D}${sbindir}/nerveshub-agent
    install -D -m 0600 ${S}/etc/default/nerveshub-agent ${D}${sysconfdir}/default/nerveshub-agent
    install -d -m 0700 ${D}${sysconfdir}/nerveshub-agent ${D}${sysconfdir}/nerveshub-agent/hooks
    install -D -m 0755 ${S}/etc/init.d/S80nerveshub-agent ${D}${sysconfdir}/init.d/nerveshub-agent
    install -D -m 0644 ${S}/etc/systemd/nerveshub-agent.service ${D}${systemd_system_unitdir}/nerveshub-agent.service
}

FILES:${PN} += "${systemd_system_unitdir}"
CONFFILES:${PN} = "${sysconfdir}/default/nerveshub-agent"
RDEPENDS:${PN} = "fwup"
