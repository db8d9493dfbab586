# SPDX-License-Identifier: MIT
# A thin front over meson: all that a newcomer needs.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc/tgg_gw

.PHONY: all deps run test bench check docs format install clean

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	meson setup $(BUILD)

deps:
	@tools/deps

run: deps all
	$(BUILD)/tgg run

test: deps
	tools/test-all

bench: deps all
	bench/run.py --build $(BUILD)

check: all
	tools/check

# What is generated from the tables in the code.
docs: all
	tools/docs --write

format:
	clang-format -i $$(tools/sources)

# The build directory of its own, because the prefix is compiled into nothing else.
install:
	meson setup build-install --prefix=$(PREFIX) -Dtests=false -Dbench=false --reconfigure 2>/dev/null || \
	    meson setup build-install --prefix=$(PREFIX) -Dtests=false -Dbench=false
	ninja -C build-install
	DESTDIR=$(DESTDIR) meson install -C build-install --no-rebuild
	@if [ ! -e "$(DESTDIR)$(SYSCONFDIR)/tgg_conf.ini" ]; then \
	    install -D -m 0640 etc/tgg_conf.ini "$(DESTDIR)$(SYSCONFDIR)/tgg_conf.ini" && \
	    echo "installed $(DESTDIR)$(SYSCONFDIR)/tgg_conf.ini"; \
	else \
	    echo "kept $(DESTDIR)$(SYSCONFDIR)/tgg_conf.ini"; \
	fi

clean:
	rm -rf build build-*
